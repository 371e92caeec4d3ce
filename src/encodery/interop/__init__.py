"""Other people's weights: their model folders read into the encoders of this project."""
