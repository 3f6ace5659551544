// An image file to the bytes that the model sees, to the last bit as PyTorch resizes bytes with antialiasing.

const CURVES = {
  bilinear: [1, x => 1 - x],
  bicubic: [2, x => x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2],
};

// A file as {width, height, data}, RGB bytes row by row; what is transparent is white.
export async function decode(file) {
  const bitmap = await createImageBitmap(file, {colorSpaceConversion: "none", imageOrientation: "from-image"});
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const data = new Uint8Array(bitmap.width * bitmap.height * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) for (let c = 0; c < 3; c++) data[j++] = rgba[i + c];
  return {width: bitmap.width, height: bitmap.height, data};
}

// Squashed, cropped to the centre or padded with the mean colour, as the model says: channel after channel.
export function fit(image, {size: [height, width], mean, interpolation, crop_mode: mode, crop_pct: kept}) {
  let target = [width, height];
  if (mode === "crop") target = keepRatio(image, Math.floor(width / kept), Math.floor(height / kept), true);
  if (mode === "pad") target = keepRatio(image, width, height, false);
  const small = resize(image, ...target, interpolation);
  const rounded = mode === "crop" ? half => roundHalfEven(half) : Math.floor;
  const upper = rounded((height - small.height) / 2 * (mode === "crop" ? -1 : 1));
  const left = rounded((width - small.width) / 2 * (mode === "crop" ? -1 : 1));
  const [down, right] = mode === "crop" ? [upper, left] : [-upper, -left];
  const ground = [0, 1, 2].map(c => roundHalfEven(255 * mean[c % mean.length]));
  const grey = mean.length === 1, out = new Uint8Array((grey ? 1 : 3) * height * width);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const from = y + down, column = x + right;
    const inside = from >= 0 && from < small.height && column >= 0 && column < small.width;
    const colour = c => inside ? small.data[(from * small.width + column) * 3 + c] : ground[c];
    const place = y * width + x;
    if (grey) out[place] = (colour(0) * 19595 + colour(1) * 38470 + colour(2) * 7471 + 0x8000) >> 16;
    else for (let c = 0; c < 3; c++) out[c * height * width + place] = colour(c);
  }
  return out;
}

function keepRatio({width, height}, wide, high, cover) {
  if ((wide * height >= high * width) === cover) return [wide, Math.max(1, Math.floor(wide * height / width))];
  return [Math.max(1, Math.floor(high * width / height)), high];
}

function roundHalfEven(value) {
  const down = Math.floor(value), rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down;
}

function resize({width, height, data}, wide, high, kind) {
  const across = new Uint8Array(wide * height * 3), out = new Uint8Array(wide * high * 3);
  const columns = weights(width, wide, kind), rows = weights(height, high, kind);
  for (let y = 0; y < height; y++) sum(columns, data, y * width * 3, 3, across, y * wide * 3, 3);
  for (let x = 0; x < wide; x++) sum(rows, across, x * 3, wide * 3, out, x * 3, wide * 3);
  return {width: wide, height: high, data: out};
}

// One line of pixels: each new one is a weighted sum of old ones, rounded.
function sum({ranges, bits}, from, start, step, to, first, stride) {
  ranges.forEach(([begin, values], place) => {
    for (let c = 0; c < 3; c++) {
      let total = 2 ** (bits - 1);
      for (let i = 0; i < values.length; i++) total += values[i] * from[start + (begin + i) * step + c];
      to[first + place * stride + c] = Math.min(255, Math.max(0, Math.floor(total / 2 ** bits)));
    }
  });
}

// What each old pixel gives to each new one, as whole numbers of 16 bits; and how many are behind the point.
function weights(before, after, kind) {
  const [reach, curve] = CURVES[kind], scale = before / after, stretch = Math.max(scale, 1);
  const shares = Array.from({length: after}, (_, place) => {
    const centre = scale * (place + 0.5);
    const begin = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const end = Math.min(before, Math.trunc(centre + reach * stretch + 0.5));
    const values = Array.from({length: end - begin}, (_, i) => {
      const distance = Math.abs((begin + i - centre + 0.5) / stretch);
      return distance < reach ? curve(distance) : 0;
    });
    const total = values.reduce((a, b) => a + b, 0);
    return [begin, values.map(value => value / total)];
  });
  const largest = Math.max(...shares.map(([, values]) => Math.max(...values)));
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  const whole = value => Math.trunc(value * 2 ** bits + (value < 0 ? -0.5 : 0.5));
  return {bits, ranges: shares.map(([begin, values]) => [begin, values.map(whole)])};
}
