"""Loss, optimizer and learning rate."""
