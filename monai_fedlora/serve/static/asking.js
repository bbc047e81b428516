/** Questions about the studies that are not finished, until all are. */

import { ApiError, getStudy } from "./api.js";
import { FINAL } from "./list.js";

const PAUSE = 700;  // milliseconds between two questions about a study that is not finished

export class Asker {
  /**
   * @param {Map<string, import("./api.js").Study>} studies what the page knows; answers are written there
   * @param {{answered: (study: import("./api.js").Study) => void, gone: (id: string) => void, round: (error: unknown) => void}} told
   *   of a study's answer, of a study that the server no longer has, and of the end of a round with what went wrong, or null
   */
  constructor(studies, { answered, gone, round }) {
    this.studies = studies;
    this.answered = answered;
    this.gone = gone;
    this.round = round;
    this.isAsking = false;
    this.breaker = new AbortController();
  }

  /** Ask about every study that is not finished, until all are; a server that does not answer is asked again. */
  async ask() {
    if (this.isAsking) return;
    this.isAsking = true;
    for (;;) {
      const open = [...this.studies.values()].filter(({ state }) => !FINAL.has(state) && state !== "sending");
      if (!open.length) break;
      await Promise.all(open.map(({ id }) => this.askAbout(id))).then(() => this.round(null), this.round);
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
    this.isAsking = false;
  }

  /** @param {string} id */
  async askAbout(id) {
    const { signal } = this.breaker;
    try {
      const study = await getStudy(id, signal);
      if (signal.aborted || !this.studies.has(id)) return;
      this.studies.set(id, study);
      this.answered(study);
    } catch (error) {
      if (signal.aborted || !this.studies.has(id)) return;
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      this.gone(id);
    }
  }

  /** Take no answer to what was asked until now; whatever the page still knows is asked about again in the next round. */
  breakOff() {
    this.breaker.abort();
    this.breaker = new AbortController();
  }
}
