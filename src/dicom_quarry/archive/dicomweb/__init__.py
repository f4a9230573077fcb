"""An archive over DICOMweb: QIDO-RS, WADO-RS, and the HTTP below them."""
