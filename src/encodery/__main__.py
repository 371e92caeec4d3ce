"""python -m encodery"""

from encodery.cli import main

main()
