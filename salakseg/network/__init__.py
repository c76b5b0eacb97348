"""The segmentation network, its checkpoint and the engines that run it."""
