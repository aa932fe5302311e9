"""A step shared out: by processes, and by what one of them can hold."""
