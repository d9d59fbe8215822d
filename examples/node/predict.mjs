// node predict.mjs MODEL_FOLDER IMAGE...
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";
import sharp from "sharp";

// RGB, upright as EXIF says, transparent pixels white; 16 bits a channel are scaled by the `bits` that hold values.
async function rgb(path, bits) {
  const isDeep = (await sharp(path).metadata()).depth === "ushort";
  const [space, depth, white, opaque] = isDeep ? ["rgb16", "ushort", 2 ** bits - 1, 65535] : ["srgb", "uchar", 255, 255];
  const upright = sharp(path).rotate().toColourspace(space).ensureAlpha().raw({ depth });
  const { data: bytes, info } = await upright.toBuffer({ resolveWithObject: true });
  const values = isDeep ? new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2) : bytes;
  const pixels = new Uint8Array(info.width * info.height * 3);
  for (let i = 0; i < pixels.length; i++) {
    const [at, channel] = [4 * Math.floor(i / 3), i % 3];
    const level = Math.min(255, Math.round((values[at + channel] * 255) / white));
    pixels[i] = Math.round(255 + ((level - 255) * values[at + 3]) / opaque);
  }
  return new ort.Tensor("uint8", pixels, [1, info.height, info.width, 3]);
}

const [folder, ...paths] = process.argv.slice(2);
const session = await ort.InferenceSession.create(`${folder}/model.onnx`);
const { classes, abstain_below, bits = 16 } = JSON.parse(readFileSync(`${folder}/model.json`));
for (const path of paths) {
  const { probabilities, label_index, novelty } = await session.run({ image: await rgb(path, bits) });
  const best = Number(label_index.data[0]);
  console.log(
    JSON.stringify({
      path,
      label: classes[best],
      probabilities: [...probabilities.data],
      abstains: probabilities.data[best] < abstain_below,
      novelty: novelty.data[0],
    }),
  );
}
