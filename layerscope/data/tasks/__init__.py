"""One file for each data set: it registers the image source and the tasks that are asked of it."""
