"""What ctr's own tests and those of third-party drivers share: laws, fakes, leak checks."""
