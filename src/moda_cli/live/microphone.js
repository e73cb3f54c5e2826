// Blocks of a microphone's samples, from the thread that hears them to the page.
registerProcessor(
  "microphone",
  class extends AudioWorkletProcessor {
    constructor() {
      super();
      [this.block, this.filled] = [new Float32Array(1024), 0];
    }
    process([[channel]]) {
      for (const sample of channel ?? []) {
        this.block[this.filled++] = sample;
        if (this.filled === this.block.length) {
          this.port.postMessage(this.block);
          this.filled = 0;
        }
      }
      return true;
    }
  },
);
