"""python predict.py MODEL_FOLDER IMAGE...: needs numpy, onnxruntime and Pillow, and nothing of headstart."""

import contextlib
import io
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageCms, ImageOps


def srgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB or CMYK with its colour profile applied."""
    profile = image.info.get("icc_profile")
    with contextlib.suppress(ImageCms.PyCMSError):  # a broken profile, or one of other colours
        if profile:
            return ImageCms.profileToProfile(
                image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
    return image.convert("RGB")


def rgb(path: str, bits: int) -> np.ndarray:
    """Return uint8 [H, W, 3]: upright as EXIF says, transparent pixels white, 16-bit grey scaled by its `bits`."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        white = 2**bits - 1
        grey = (np.asarray(image).astype(np.uint32) * 255 + white // 2) // white
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "CMYK":
        return np.asarray(srgb(image))
    opaque = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    opaque.info = image.info
    return np.asarray(srgb(opaque))


folder, *paths = sys.argv[1:]
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
facts = session.get_modelmeta().custom_metadata_map
classes, abstain_below = json.loads(facts["classes"]), float(facts["abstain_below"])
for path in paths:
    (probabilities,), (best,), (novelty,) = session.run(
        ["probabilities", "label_index", "novelty"], {"image": rgb(path, int(facts.get("bits", 16)))[None]}
    )
    answer = {"path": path, "label": classes[best], "probabilities": probabilities.tolist()}
    answer |= {"abstains": bool(probabilities[best] < abstain_below), "novelty": float(novelty)}
    print(json.dumps(answer))
