"""Archive adapter for DIMSE: C-ECHO, C-FIND, C-MOVE and C-GET."""
