"""What happens when the machinery around the controller fails: the broker's API, its nodes, the disk, the clock."""
