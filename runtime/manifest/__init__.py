"""The sections of the manifest; :mod:`patchline.runtime.contract` gathers them."""
