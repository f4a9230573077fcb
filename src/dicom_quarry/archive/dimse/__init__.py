"""An archive over DIMSE: C-ECHO, C-FIND, C-MOVE and C-GET."""
