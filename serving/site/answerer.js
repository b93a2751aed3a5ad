// Answers from a worker, so that the page stays awake while the model runs.

const MODULE = new URL("./answering.js", import.meta.url).href;
// A worker from an address of its own would have a policy of its own: that of its response, which
// is none on most servers. One from a blob: is held to the page's, which sends nothing anywhere.
// A classic one, since LiteRT loads its script with importScripts.
const SOURCE = `import(${JSON.stringify(MODULE)}).catch((e) => postMessage({ broken: e.message }))`;

/** Starts the worker when it is first asked. */
export class Answerer {
  #worker = null;
  #ready = null;
  #waiting = new Map(); // number of the question -> what to do with its messages
  #count = 0;

  /**
   * Answer questions, each of one text or of two, with a file of the site.
   * @param {string[][]} texts
   * @param {string} file
   * @param {{signal?: AbortSignal, progress?: (share: number) => void}} [options]
   * @returns {Promise<{answers: object[], file: string, latency_ms: number}>}
   */
  async ask(texts, file, { signal, progress = () => {} } = {}) {
    await (this.#ready ??= this.#start());
    signal?.throwIfAborted();
    const number = this.#count++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject, progress });
      signal?.addEventListener("abort", () => {
        this.#waiting.delete(number);
        reject(signal.reason);
      });
      this.#worker.postMessage({ number, question: { texts, file } });
    });
  }

  /** Load a file, so that the next question need not wait for it. */
  load(file, progress) {
    return this.ask([], file, { progress });
  }

  #start() {
    const address = URL.createObjectURL(new Blob([SOURCE], { type: "text/javascript" }));
    return new Promise((resolve, reject) => {
      this.#worker = new Worker(address);
      const failed = (message) => {
        this.#ready = null; // the next question tries again
        reject(new Error(`The model's worker cannot start: ${message}`));
      };
      this.#worker.addEventListener("error", (event) => failed(event.message));
      this.#worker.addEventListener("message", ({ data }) => {
        if (data.ready) resolve();
        else if (data.broken) failed(data.broken);
        else this.#receive(data);
      });
    });
  }

  #receive({ number, progress, answer, error }) {
    const waiting = this.#waiting.get(number);
    if (progress !== undefined) {
      waiting?.progress(progress);
      return;
    }
    this.#waiting.delete(number);
    if (error === undefined) waiting?.resolve(answer);
    else waiting?.reject(new Error(error));
  }
}
