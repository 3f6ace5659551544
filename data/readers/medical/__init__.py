"""Medical data: readers of public radiology sets, and what they share."""

from __future__ import annotations

from latentcap.data.readers.medical import dicom_studies, indiana, medpix, mimic, openi, openi_index

FORMATS = (mimic.FORMAT, indiana.FORMAT, medpix.FORMAT, openi.FORMAT, openi_index.FORMAT, dicom_studies.FORMAT)
