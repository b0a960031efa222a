"""Images: the content store, layers applied as hostile input, the embedded image, import."""
