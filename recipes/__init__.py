"""The recipes, one readable file each; the folder's listing is the list."""
