"""What a training step needs on devices that are not there."""
