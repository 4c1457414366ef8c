"""Renders a model (OBJ with materials) to product pictures: white ground, tight square framing, soft light.

Owns camera, light and framing; the catalogue build and the training data both call `render_views`.
VTK draws off screen (EGL, or an X display if there is one), loading a model once for all of its views.
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.obj_model import Floats, Indices, Material, Model, Surface, read_model

MIN_CONTRAST = 5  # of 255; less is an empty picture
MARGIN = 0.06  # of the picture's side, left free around the object
SUPERSAMPLING = 2
VIEW_ANGLE = 22.0  # degrees; a long lens, as product photographers use, keeps verticals nearly parallel
# Position in camera coordinates and brightness: key from upper left, fill from the right. With the ambient light a
# white box shows its top at 0.9, its front at 0.85 and its side at 0.65 of the white ground.
LIGHTS = (((-1.1, 0.9, 1.7), 1.0), ((1.6, 0.3, 1.0), 0.44))
AMBIENT = 0.42
DIFFUSE = 0.70
# Fitted to the brightness of the package's icons over all products.
MATERIAL_GAIN = 1.08
AMBIENT_GAIN = 0.27
MIN_OPACITY = 0.22  # clear glass has to leave a trace on white
MAX_ELEVATION = 85.0  # degrees; straight above has no upward direction
CREASE_ANGLE = 40.0  # degrees; sharper edges stay edges
MAX_DIFFUSE = 0.93  # keeps pure white surfaces apart from the white ground
MIN_DIFFUSE = 0.04  # keeps the form of pure black surfaces visible


@dataclass(frozen=True)
class View:
    """A camera position in degrees: azimuth 0 is the front and grows to the viewer's right, elevation 0 is level."""

    azimuth: float
    elevation: float
    pixels: int = 512

    @property
    def file_name(self) -> str:
        return f"az{self.azimuth:g}_el{self.elevation:g}.png"


MAIN_VIEWS = (View(30, 20),)
QUERY_VIEWS = (View(-40, 30), View(70, 10))
TRAIN_VIEWS = tuple(View(azimuth, elevation, 320) for azimuth, elevation in ((0, 12), (50, 35), (-70, 15)))


def render_views(
    model: Path,
    out_dir: Path,
    views: Sequence[View],
    *,
    rotation: Sequence[float] | None = None,
    size: tuple[float, float, float] | None = None,
    turn: float = 0.0,
    rise: float = 0.0,
    ground: float = 1.0,
) -> list[Path]:
    """Render the views of `model` that `out_dir` lacks; return the paths of all.

    `rotation` is a row-major 3x3 matrix; `size` (width, height, depth) is what the rotated model is scaled to, the two
    steps by which Sweet Home 3D places a model. `turn` and `rise` are added to the azimuth and elevation of all views.
    `ground` is the grey of the background, 0 to 1.
    """
    paths = [out_dir / view.file_name for view in views]
    missing = [(view, path) for view, path in zip(views, paths, strict=True) if not path.exists()]
    if missing:
        out_dir.mkdir(parents=True, exist_ok=True)
        scene = _Scene(model, rotation, size, ground)
        try:
            for view, path in missing:
                turned = replace(view, azimuth=view.azimuth + turn, elevation=min(view.elevation + rise, MAX_ELEVATION))
                _save(scene.draw(turned), path)
        finally:
            scene.close()
    return paths


def _save(picture: Image.Image, path: Path) -> None:
    # Renamed at the end, so that a stopped run leaves no half picture that the next one would keep.
    part = path.with_suffix(".part")
    picture.save(part, format="PNG", compress_level=4)
    part.replace(path)


class _Scene:
    def __init__(
        self, model: Path, rotation: Sequence[float] | None, size: tuple[float, float, float] | None, ground: float
    ) -> None:
        # Imported late and untyped: only the build needs VTK, not those who import the views.
        self._vtk: Any = importlib.import_module("vtkmodules.all")
        self._vtk.vtkLogger.SetStderrVerbosity(self._vtk.vtkLogger.VERBOSITY_ERROR)  # no word on a missing X display
        self._numpy: Any = importlib.import_module("vtkmodules.util.numpy_support")
        self._window = self._vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._renderer = self._vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        contents = read_model(model)
        contents = _place(contents, rotation, size)
        used = np.unique(np.concatenate([surface.vertices for surface in contents.surfaces]))
        self._vertices = contents.vertices[used]
        for surface in contents.surfaces:
            self._add(contents, surface)
        self._set_up_renderer(ground)

    def _add(self, model: Model, surface: Surface) -> None:
        mapper = self._vtk.vtkPolyDataMapper()
        mapper.SetInputData(self._mesh(model, surface))
        actor = self._vtk.vtkActor()
        actor.SetMapper(mapper)
        self._finish_material(actor, surface)
        self._renderer.AddActor(actor)

    def _mesh(self, model: Model, surface: Surface) -> Any:
        """One point for each corner of each face, so that corners can differ in normal and texture coordinate."""
        mesh = self._polygons(model.vertices[surface.vertices], np.arange(len(surface.vertices)), surface.sizes)
        if len(model.normals) and surface.normals.min() >= 0:
            normals = model.normals[surface.normals]
        else:
            normals = self._smooth_normals(model.vertices, surface)
        mesh.GetPointData().SetNormals(self._numpy.numpy_to_vtk(normals, deep=True))
        if _is_textured(surface):
            coordinates = model.texture_coordinates[surface.texture_coordinates]
            mesh.GetPointData().SetTCoords(self._numpy.numpy_to_vtk(coordinates, deep=True))
        return mesh

    def _polygons(self, points: Floats, corners: Indices, sizes: Indices) -> Any:
        vtk_points = self._vtk.vtkPoints()
        vtk_points.SetData(self._numpy.numpy_to_vtk(np.ascontiguousarray(points), deep=True))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        cells = self._vtk.vtkCellArray()
        cells.SetData(
            self._numpy.numpy_to_vtkIdTypeArray(offsets, deep=True),
            self._numpy.numpy_to_vtkIdTypeArray(np.ascontiguousarray(corners), deep=True),
        )
        mesh = self._vtk.vtkPolyData()
        mesh.SetPoints(vtk_points)
        mesh.SetPolys(cells)
        return mesh

    def _smooth_normals(self, vertices: Floats, surface: Surface) -> Floats:
        """Normals for each corner, averaged over the faces at a vertex that meet at less than the crease angle."""
        # Equal positions are merged first: many models repeat vertices at every face.
        points, corners = np.unique(vertices[surface.vertices], axis=0, return_inverse=True)
        normals = self._vtk.vtkPolyDataNormals()
        normals.SetInputData(self._polygons(points, corners.reshape(-1), surface.sizes))
        normals.SetFeatureAngle(CREASE_ANGLE)
        normals.SplittingOn()
        normals.ConsistencyOff()
        normals.Update()
        result = normals.GetOutput()
        order = self._numpy.vtk_to_numpy(result.GetPolys().GetConnectivityArray())
        return np.array(self._numpy.vtk_to_numpy(result.GetPointData().GetNormals())[order], dtype=np.float64)

    def _finish_material(self, actor: Any, surface: Surface) -> None:
        material = surface.material
        look = actor.GetProperty()
        textured = _is_textured(surface)
        if textured:
            actor.SetTexture(self._texture(material))
        # A texture brings its own colour; the package's icons show it unmultiplied.
        colour = tuple(
            MIN_DIFFUSE + (MAX_DIFFUSE - MIN_DIFFUSE) * channel
            for channel in ((1.0, 1.0, 1.0) if textured else _lift(material))
        )
        look.SetColor(*colour)
        look.SetAmbient(AMBIENT)
        look.SetDiffuse(DIFFUSE)
        look.SetSpecular(material.specular * 0.3)
        look.SetSpecularPower(max(10.0, min(material.shininess, 80.0)))
        look.SetInterpolationToPhong()
        look.SetOpacity(max(material.opacity, MIN_OPACITY))

    def _texture(self, material: Material) -> Any:
        pixels = np.ascontiguousarray(np.array(_texture_image(material))[::-1])  # VTK counts rows from below
        height, width, channels = pixels.shape
        data = self._vtk.vtkImageData()
        data.SetDimensions(width, height, 1)
        data.GetPointData().SetScalars(self._numpy.numpy_to_vtk(pixels.reshape(-1, channels), deep=True))
        texture = self._vtk.vtkTexture()
        texture.SetInputData(data)
        texture.SetColorModeToDirectScalars()
        texture.RepeatOn()
        texture.MipmapOn()
        texture.InterpolateOn()
        texture.SetMaximumAnisotropicFiltering(8)
        return texture

    def _set_up_renderer(self, ground: float) -> None:
        self._renderer.SetBackground(ground, ground, ground)
        self._renderer.SetUseDepthPeeling(True)
        self._renderer.SetMaximumNumberOfPeels(6)
        self._renderer.RemoveAllLights()
        self._renderer.AutomaticLightCreationOff()
        for position, intensity in LIGHTS:
            light = self._vtk.vtkLight()
            light.SetLightTypeToCameraLight()
            light.SetPosition(*position)
            light.SetFocalPoint(0, 0, 0)
            light.SetIntensity(intensity)
            self._renderer.AddLight(light)

    def draw(self, view: View) -> Image.Image:
        pixels = view.pixels * SUPERSAMPLING
        self._window.SetSize(pixels, pixels)
        self._aim(view)
        self._window.Render()
        picture = self._picture()
        if np.ptp(np.asarray(picture)) < MIN_CONTRAST:
            raise ValueError("the picture is empty")
        return picture.resize((view.pixels, view.pixels), Image.Resampling.BOX)

    def close(self) -> None:
        self._window.Finalize()

    def _aim(self, view: View) -> None:
        camera = self._renderer.GetActiveCamera()
        low, high = self._vertices.min(axis=0), self._vertices.max(axis=0)
        centre = (low + high) / 2
        distance = float(np.linalg.norm(high - low)) / 2 / math.sin(math.radians(VIEW_ANGLE / 2))
        camera.SetWindowCenter(0, 0)
        camera.SetViewAngle(VIEW_ANGLE)
        camera.SetFocalPoint(*centre)
        camera.SetPosition(centre[0], centre[1], centre[2] + distance)
        camera.SetViewUp(0, 1, 0)
        camera.Azimuth(view.azimuth)
        camera.Elevation(view.elevation)
        camera.OrthogonalizeViewUp()
        left, right, bottom, top = self._projected_box(camera)
        zoom = 2 * (1 - 2 * MARGIN) / max(right - left, top - bottom)
        camera.SetViewAngle(2 * math.degrees(math.atan(math.tan(math.radians(VIEW_ANGLE / 2)) / zoom)))
        camera.SetWindowCenter(zoom * (left + right) / 2, zoom * (bottom + top) / 2)
        self._renderer.ResetCameraClippingRange()

    def _projected_box(self, camera: Any) -> tuple[float, float, float, float]:
        """The object's box on the picture, where the picture reaches from -1 to 1."""
        matrix = camera.GetCompositeProjectionTransformMatrix(1.0, -1.0, 1.0)
        projection = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        projected = self._vertices @ projection[:, :3].T + projection[:, 3]
        flat = projected[:, :2] / projected[:, 3:]
        (left, bottom), (right, top) = flat.min(axis=0), flat.max(axis=0)
        return float(left), float(right), float(bottom), float(top)

    def _picture(self) -> Image.Image:
        reader = self._vtk.vtkWindowToImageFilter()
        reader.SetInput(self._window)
        reader.ReadFrontBufferOff()
        reader.SetShouldRerender(False)
        reader.Update()
        width, height, _ = reader.GetOutput().GetDimensions()
        colours = self._numpy.vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars())
        rows = colours.reshape(height, width, 3)[::-1]  # VTK counts rows from below
        return Image.fromarray(np.ascontiguousarray(rows))


def _place(model: Model, rotation: Sequence[float] | None, size: tuple[float, float, float] | None) -> Model:
    """Rotate, then scale to `size`."""
    linear = np.eye(3) if rotation is None else np.array(rotation, dtype=np.float64).reshape(3, 3)
    if size is not None:
        extent = np.ptp(model.vertices @ linear.T, axis=0)
        flat = np.isclose(extent, 0)
        scale = np.array(size) / np.where(flat, 1.0, extent)
        linear = np.diag(np.where(flat, 1.0, scale)) @ linear
    normals = model.normals @ np.linalg.inv(linear)  # of each row: the inverse transposed, times it
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return replace(model, vertices=model.vertices @ linear.T, normals=normals / np.where(lengths > 0, lengths, 1.0))


def _lift(material: Material) -> tuple[float, ...]:
    # Sweet Home 3D's lights sum to more than 1 on materials that reflect ambient light: their "white" is 0.64 to 0.8.
    gain = min(MATERIAL_GAIN + AMBIENT_GAIN * material.ambient, 1 / max(*material.diffuse, 1e-3))
    return tuple(channel * gain for channel in material.diffuse)


def _is_textured(surface: Surface) -> bool:
    return surface.material.texture is not None and bool(surface.texture_coordinates.min() >= 0)


def _texture_image(material: Material) -> Image.Image:
    if material.texture is None:
        raise ValueError("the material has no texture")
    with Image.open(material.texture) as file:
        has_alpha = "A" in file.getbands() or "transparency" in file.info
        image = file.convert("RGBA" if has_alpha else "RGB")
    if material.opacity_texture is not None and not has_alpha:
        with Image.open(material.opacity_texture) as file:
            image.putalpha(file.convert("L").resize(image.size))
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")  # an unused alpha channel would switch on the slow drawing of transparency
    return image
