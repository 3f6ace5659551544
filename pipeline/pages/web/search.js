// What words and captions gain because the label head sees their words, given the chances of its classes.
function guided({words, classes, rarity, unsure, whole}, chances, weight) {
  const unit = values => { const norm = Math.max(Math.hypot(...values), 1e-12); return values.map(value => value / norm); };
  const seen = unit(rarity.map((rare, i) => chances[classes[i]] * rare));
  const worth = new Map(words.map((word, i) => [word, weight * (chances[classes[i]] - unsure) * rarity[i]]));
  return {
    gain: (word, before) => before.includes(word) ? 0 : worth.get(word) ?? 0,
    agreement: caption => whole * weight * unit(rarity.map((rare, i) => rare * caption.filter(word => word === words[i]).length))
      .reduce((sum, said, i) => sum + said * seen[i], 0)};
}

// Beam search over one image's memory: the words of the best caption. The same search as latentcap's own.

export async function search(ort, step, memory, config, chances) {
  const guide = chances && guided(config.guide, chances, config.search.guidance);
  const {beam_size: size, max_length: longest, min_length: shortest, length_penalty: penalty} = config.search;
  const tensor = (values, ...sizes) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), sizes);
  const rank = (total, length) => total / Math.max(length, 1) ** penalty;
  const shapes = config.states.map(name => name === "latents" ? [1, 1, 0, config.latent] : [1, 1, config.hidden]);
  let states = shapes.map(shape => new ort.Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b)), shape));
  let beams = [{total: 0, own: 0, parent: 0, words: []}], found = []; // own: log-probability, without what a guide adds
  for (let length = 0; length <= longest; length++) {
    const feeds = {...memory,
      word: tensor(beams.map(beam => beam.words.at(-1) ?? config.bos), 1, beams.length),
      parent: tensor(beams.map(beam => beam.parent), 1, beams.length)};
    config.states.forEach((name, i) => { feeds[name] = states[i]; });
    const next = await step.run(feeds);
    states = config.states.map(name => next[`next_${name}`]);
    const logProbs = next.log_probs.data, vocabulary = next.log_probs.dims[2], choices = [];
    beams.forEach(({total, own, words}, parent) => {
      const worth = Array.from({length: vocabulary}, (_, word) => logProbs[parent * vocabulary + word] + (guide?.gain(word, words) ?? 0));
      const ranked = worth.map((_, word) => word).filter(word => word !== config.eos || length >= shortest)
        .sort((a, b) => worth[b] - worth[a]).slice(0, 2 * size);
      for (const word of ranked) {
        const sum = Math.fround(total + worth[word]);
        const alone = Math.fround(own + logProbs[parent * vocabulary + word]);
        if (sum > -Infinity) choices.push({total: sum, own: alone, parent, word, before: words});
      }
    });
    choices.sort((a, b) => b.total - a.total);
    for (const {total, own, word, before} of choices.slice(0, guide && size > 1 ? 2 * size : size))
      if (word === config.eos) found.push({score: rank(total, length + 1), own: rank(own, length + 1), words: before});
    found = found.sort((a, b) => b.score - a.score).slice(0, size);
    const going = length === longest ? [] : choices.slice(0, 2 * size).filter(({word}) => word !== config.eos).slice(0, size);
    if (!going.length && !found.length) {
      const best = beams.reduce((a, b) => b.total > a.total ? b : a);
      found.push({score: rank(best.total, length), own: rank(best.own, length), words: best.words});
    }
    const full = found.length === size;
    if (!going.some(({total}) => !full || found.at(-1).score < rank(total, length + 1))) break;
    beams = going.map(({total, own, parent, word, before}) => ({total, own, parent, words: [...before, word]}));
  }
  const last = ({own, words}) => own + (guide?.agreement(words) ?? 0);
  return found.reduce((best, entry) => last(entry) > last(best) ? entry : best).words;
}

// Ids to text: words and a space between them, or pieces, each its bytes.
export function decode(ids, {vocabulary, tokenizer}) {
  const written = ids.filter(id => id > 3).map(id => vocabulary[id]);
  if (tokenizer === "bpe") return new TextDecoder().decode(Uint8Array.from(written.flat()));
  return written.join(" ").replaceAll(" .", ".");
}
