// Decodes an image file as headstart/images does: the first frame, upright, RGB, transparent pixels white.

export class UnreadableError extends Error {}

// Values of `bits` of 16 bits fill only a part of the range. A browser reads the higher byte alone.
const PNG = [137, 80, 78, 71, 13, 10, 26, 10], BIT_DEPTH_AT = 24;

async function isDeep(file) {
  const start = new Uint8Array(await file.slice(0, BIT_DEPTH_AT + 1).arrayBuffer());
  return start.length > BIT_DEPTH_AT && PNG.every((byte, at) => start[at] === byte) && start[BIT_DEPTH_AT] === 16;
}

// Returns {width, height, rgb: Uint8Array of height x width x 3}; throws UnreadableError.
export async function decoded(file, bits) {
  if (bits < 16 && await isDeep(file)) throw new UnreadableError("deep");
  let bitmap;
  try {
    // A colour profile is applied, as in training. `imageOrientation` applies EXIF.
    bitmap = await createImageBitmap(file, {colorSpaceConversion: "default", imageOrientation: "from-image"});
  } catch {
    throw new UnreadableError("unreadable");
  }
  const {width, height} = bitmap;
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    const rgba = context.getImageData(0, 0, width, height).data, rgb = new Uint8Array(width * height * 3);
    for (let from = 0, to = 0; from < rgba.length; from += 4) {
      rgb[to++] = rgba[from];
      rgb[to++] = rgba[from + 1];
      rgb[to++] = rgba[from + 2];
    }
    return {width, height, rgb};
  } catch {
    throw new UnreadableError("large");  // a canvas of this size is refused, or memory is short
  } finally {
    bitmap.close();
  }
}
