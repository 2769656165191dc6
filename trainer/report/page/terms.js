// Terms: their colours, which stay, and the folding of names that share a prefix.

// Okabe and Ito's colours, told apart by colour-blind readers; later cycles are hatched.
const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a68c6", "#a5a02a"];
const OTHERS = "#8b8f96";
const MOST = 14; // areas: of more, the smallest are drawn as one

export class Colours {
  constructor() {
    this.hues = new Map();
    this.cycles = new Map();
  }

  // Run after run, in the order of the objective: a term has one colour in all of them, and one
  // that is new takes the colour that its own run has least of.
  learn(terms) {
    const names = fold(terms, new Set(), null).map((entry) => entry.name);
    const everywhere = [...this.hues.values()];
    for (const name of names) {
      if (this.hues.has(name)) continue;
      const here = names.map((other) => this.hues.get(other)), count = (list, hue) => list.filter((h) => h === hue).length;
      const used = HUES.map((_, hue) => count(here, hue) * 1000 + count(everywhere, hue));
      this.hues.set(name, used.indexOf(Math.min(...used)));
      everywhere.push(this.hues.get(name));
    }
  }

  // Of the entries that are drawn together, those of one colour are hatched in turn.
  arrange(names) {
    const seen = HUES.map(() => 0);
    names.forEach((name) => this.cycles.set(name, name.endsWith(" others") ? 0 : seen[this.hue(name)]++ % 3));
  }

  hue(name) {
    if (!this.hues.has(name)) this.hues.set(name, [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 9973, 7) % HUES.length);
    return this.hues.get(name);
  }

  of(name) {
    const colour = name.endsWith(" others") ? OTHERS : HUES[this.hue(name)];
    return { colour, cycle: this.cycles.get(name) || 0 };
  }
}

export function groupOf(name) {
  const slash = name.indexOf("/");
  if (slash > 0) return `${name.slice(0, slash)}/*`;
  const numbered = /^(.*?[^\d])[\d]+$/.exec(name);
  return numbered ? `${numbered[1]}*` : null;
}

// Entries {name, terms, group}: single terms, folded groups of at least three, and the rest.
export function fold(terms, opened, sizes) {
  const members = new Map();
  for (const name of terms) {
    const group = groupOf(name);
    if (group) members.set(group, [...(members.get(group) || []), name]);
  }
  const entries = new Map();
  for (const name of terms) {
    const group = groupOf(name), together = group && members.get(group).length >= 3;
    if (together && !opened.has(group)) entries.set(group, { name: group, terms: members.get(group), group });
    else entries.set(name, { name, terms: [name], group: together ? group : null });
  }
  const all = [...entries.values()];
  if (!sizes || all.length <= MOST || opened.has("others")) return all;
  const size = (entry) => entry.terms.reduce((sum, name) => sum + (sizes.get(name) || 0), 0);
  const largest = new Set([...all].sort((a, b) => size(b) - size(a)).slice(0, MOST - 1));
  const rest = all.filter((entry) => !largest.has(entry));
  return [...all.filter((entry) => largest.has(entry)), { name: `${rest.length} others`, terms: rest.flatMap((entry) => entry.terms), group: "others" }];
}
