"""What is fitted to data: networks and their losses, one file each, and the ridge regression."""
