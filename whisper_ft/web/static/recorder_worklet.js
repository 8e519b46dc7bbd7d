// Audio worklet: it hands on the samples of the microphone in blocks, as 16-bit numbers, with the level of each block.

const BLOCK = 2048; // samples: 43 ms at 48 kHz

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.clear();
  }

  clear() {
    this.block = new Int16Array(BLOCK);
    this.filled = 0;
    this.squares = 0;
    this.peak = 0;
  }

  process(inputs) {
    const channels = inputs[0];
    if (!channels.length) return true;
    for (let at = 0; at < channels[0].length; at += 1) {
      let sample = 0;
      for (const channel of channels) sample += channel[at] / channels.length;
      this.squares += sample * sample;
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.block[this.filled] = Math.round(Math.max(-1, Math.min(1, sample)) * 32767);
      this.filled += 1;
      if (this.filled === BLOCK) {
        const { block, squares, peak } = this;
        this.port.postMessage({ block, rms: Math.sqrt(squares / BLOCK), peak }, [block.buffer]);
        this.clear();
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
