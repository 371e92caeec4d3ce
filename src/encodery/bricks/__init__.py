"""Small parts every wall is made of: layers, positions, pooling."""
