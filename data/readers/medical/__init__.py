"""Medical data: readers of public radiology sets, report text, patients' ages and DICOM images."""
