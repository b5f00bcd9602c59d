"""The rendered 3D data set: objects on a floor under a spot, with all that was varied known.

Seven latents are drawn uniformly for each image, as in Table 1 of Guillotine Regularization. The
objects are procedural, or the user's own meshes. Importing this room loads no renderer.
"""

from layerscope.render.dataset import render_dataset
from layerscope.render.render_plan import RenderPlan, plan
from layerscope.render.renderer import renderers
from layerscope.render.settings import RenderSettings

__all__ = ["RenderPlan", "RenderSettings", "plan", "render_dataset", "renderers"]
