"""Programs of `make check` and `make docs`: checks of names and text, and the drawing of the packages."""
