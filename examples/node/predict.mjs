// node predict.mjs MODEL_FOLDER IMAGE...
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";
import sharp from "sharp";

// RGB, upright as EXIF says, transparent pixels white.
async function rgb(path) {
  const upright = sharp(path).rotate().toColourspace("srgb").ensureAlpha();
  const { data, info } = await upright.raw().toBuffer({ resolveWithObject: true });
  const pixels = new Uint8Array(info.width * info.height * 3);
  for (let i = 0; i < pixels.length; i++) {
    const [at, channel] = [4 * Math.floor(i / 3), i % 3];
    pixels[i] = Math.round(255 + ((data[at + channel] - 255) * data[at + 3]) / 255);
  }
  return new ort.Tensor("uint8", pixels, [1, info.height, info.width, 3]);
}

const [folder, ...paths] = process.argv.slice(2);
const session = await ort.InferenceSession.create(`${folder}/model.onnx`);
const { classes, abstain_below } = JSON.parse(readFileSync(`${folder}/model.json`));
for (const path of paths) {
  const { probabilities, label_index, novelty } = await session.run({ image: await rgb(path) });
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
