"""What a network learns: classification, segmentation or regression, a module per task."""
