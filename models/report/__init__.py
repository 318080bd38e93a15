"""What people look at: a model, or a search for hyperparameters, as one HTML file of its own."""
