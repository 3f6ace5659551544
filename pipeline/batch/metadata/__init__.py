"""Descriptions in the metadata of images: XMP packets, and the JPEG, PNG and WebP files that hold them."""
