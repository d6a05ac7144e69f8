"""Numbers found from normal images: the decision threshold and the statistics behind it.

May import ``patchline.runtime``, never ``patchline.export`` or torch (DESIGN section 1).
"""
