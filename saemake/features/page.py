"""features.html: the page of an SAE, one file that works without a network and without scripts.

Scripts only sort, search and read out activations. All text is escaped.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from saemake.base.html import document, facts
from saemake.features.charts import bars, decade_bars
from saemake.features.table import Summary
from saemake.features.writing import in_list, in_text, number, percent, signed
from saemake.paths.files import FEATURES, FEATURES_PAGE
from saemake.paths.names import SaeName

STYLE, SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
)
# Steps of shade.
SHADES = 10
# Tokens that a row of the list shows.
IN_ROW = 2


def html(
    sae: SaeName, rows: Sequence[dict[str, Any]], summary: Summary, sweep: Sequence[SaeName]
) -> str:
    """The page of an SAE. `sweep` are the SAEs whose pages the same job writes, itself among
    them."""
    shown = {row["latent"] for row in rows}
    body = f"""<a class="skip" href="#latents">Skip to the latents</a>
{_header(sae, summary, sweep)}
<main>
{_list(rows, summary)}
<section class="cards" aria-labelledby="each">
<h2 id="each">Each latent</h2>
{"".join(_card(row, summary, shown) for row in rows)}
</section>
</main>
<footer><p>Written by saemake from {FEATURES}, which lies beside this page and has the same
figures.</p></footer>"""
    return document(f"Latents of {sae}", STYLE, SCRIPT, body)


def _header(sae: SaeName, summary: Summary, sweep: Sequence[SaeName]) -> str:
    kept = f"{summary.positions:,} of {summary.tokens:,}" if summary.dropped else ""
    left_out = f" Left out: {summary.dropped}." if summary.dropped else ""
    text = "held-out text" if summary.held_out else "the training text (not held out)"
    about = {
        "Model": sae.model,
        "Site": sae.hookpoint.described,
        "Architecture": sae.sweep.architecture,
        "Width": f"{sae.sweep.width} ({summary.latents:,} latents)",
        "Sparsity": sae.sparsity_name,
        **({} if sae.seed is None else {"Seed": str(sae.seed)}),
        "L0 on this text": f"{summary.l0:.4g}",
        "Text": f"{summary.tokens:,} tokens in {summary.contexts:,} contexts",
        **({"Positions used": kept} if kept else {}),
        "Dead on this text": f"{summary.dead:,} ({percent(summary.dead / summary.latents)})",
    }
    parts = "<wbr>/".join(escape(part) for part in str(sae).split("/"))
    return f"""<header class="page">
<h1>{parts}</h1>
<p class="lede">What the latents of this sparse autoencoder fire on in {text}, and which tokens they
promote.{escape(left_out)}</p>
<div class="about">
{facts(about)}
{decade_bars(summary)}
</div>
{_sweep(sae, sweep)}
</header>"""


def _sweep(sae: SaeName, sweep: Sequence[SaeName]) -> str:
    if len(sweep) < 2:
        return ""
    depth = len(PurePosixPath(sae.own_part).parts)
    links = "".join(
        f'<li><a aria-current="page" href="#latents">{escape(other.own_part)}</a></li>'
        if other == sae
        else f'<li><a href="{"../" * depth}{escape(other.own_part)}/{FEATURES_PAGE}">'
        f"{escape(other.own_part)}</a></li>"
        for other in sweep
    )
    return f'<nav aria-label="SAEs of the sweep"><p>The sweep</p><ul>{links}</ul></nav>'


def _list(rows: Sequence[dict[str, Any]], summary: Summary) -> str:
    alive = summary.latents - summary.dead
    asked = sum(row["asked"] for row in rows)
    sampled = min(summary.sample, alive)
    if alive and not sampled:
        words = f"None of the {alive:,} latents that fired on this text are sampled."
    elif alive == 0:
        words = "No latent fired on this text: each was 0 at every position."
    elif sampled == alive:
        words = f"All {alive:,} latents that fired on this text."
    else:
        words = (
            f"{sampled:,} of the {alive:,} latents that fired on this text, evenly spaced in the"
            " order of their densities, from the rarest to the densest."
        )
    if asked:
        words += f" The config asks for {asked:,}."
    table = ""
    if rows:
        heads = (
            ("Latent", "ascending"),
            ("Density", "none"),
            ("Largest", "none"),
        )
        sorted_by = "".join(
            f'<th scope="col" aria-sort="{order}"><button type="button">{name}</button></th>'
            for name, order in heads
        )
        table = f"""<div class="tools">
<label for="search">Search tokens, contexts and numbers of latents</label>
<input id="search" type="search" autocomplete="off" spellcheck="false">
<p class="count" id="count" role="status">{len(rows):,} latents</p>
</div>
<div class="scroll" tabindex="0" role="region" aria-label="List of latents">
<table>
<thead><tr>{sorted_by}<th scope="col">Fires on</th><th scope="col" class="wide">Promotes</th></tr>
</thead>
<tbody>
{"".join(map(_row, rows))}</tbody>
</table>
</div>"""
    return f"""<section class="list" aria-labelledby="latents">
<h2 id="latents" tabindex="-1">Latents</h2>
<p>{words}</p>
{table}
</section>"""


def _row(row: dict[str, Any]) -> str:
    latent, largest = row["latent"], row["largest"] or 0.0
    fires_on = list(dict.fromkeys(_peak(context) for context in row["contexts"]))[:IN_ROW]
    promoted = [token["token"] for token in row["promoted"]][:IN_ROW]
    return (
        f'<tr data-latent="{latent}"><th scope="row" data-value="{latent}">'
        f'<a href="#latent-{latent}">{latent}</a></th>'
        f'<td data-value="{row["density"]!r}">{percent(row["density"])}</td>'
        f'<td data-value="{largest!r}">{number(largest)}</td>'
        f'<td>{_tokens(fires_on)}</td><td class="wide">{_tokens(promoted)}</td></tr>\n'
    )


def _peak(context: dict[str, Any]) -> str:
    token: str = context["tokens"][context["position"] - context["first"]]
    return token


def _tokens(tokens: Iterable[str]) -> str:
    return " ".join(f"<code>{escape(in_list(token))}</code>" for token in tokens) or "none"


def _card(row: dict[str, Any], summary: Summary, shown: set[int]) -> str:
    latent = row["latent"]
    if row["fired"]:
        fires = (
            f"fires on {percent(row['density'])} of positions ({row['fired']:,} of"
            f" {summary.positions:,}), with {number(row['mean'])} on average and"
            f" {number(row['largest'])} at most"
        )
    else:
        fires = "never fired on this text"
    asked = " The config asks for it." if row["asked"] else ""
    return f"""<article class="card" id="latent-{latent}" data-latent="{latent}"
 aria-labelledby="name-{latent}">
<header><h3 id="name-{latent}" tabindex="-1">Latent {latent}</h3>
<p>It {fires}.{asked} <a href="#latents">Back to the list</a></p></header>
<div class="parts">
{_contexts(row)}
<div class="beside">
{bars(row)}
{_lens("Promotes", row["promoted"], summary.norm)}
{_lens("Suppresses", row["suppressed"], summary.norm)}
{_nearest(row["nearest"], shown)}
</div>
</div>
</article>
"""


def _contexts(row: dict[str, Any]) -> str:
    if not row["contexts"]:
        what = "It is above 0 nowhere on this text." if row["fired"] else "There are none."
        return f'<section class="contexts"><h4>Top contexts</h4><p>{what}</p></section>'
    largest = row["contexts"][0]["activation"]
    items = "".join(_context(context, largest) for context in row["contexts"])
    words = "".join(f"<li>{_in_words(context)}</li>" for context in row["contexts"])
    return f"""<section class="contexts"><h4>Top contexts</h4>
<ol>{items}</ol>
<details><summary>Activations in words</summary><ol>{words}</ol></details>
</section>"""


def _context(context: dict[str, Any], largest: float) -> str:
    place = f"context {context['context']}, position {context['position']}"
    tokens = zip(context["tokens"], context["activations"], strict=True)
    peak = context["position"] - context["first"]
    text = "".join(
        _token(token, value, largest, at == peak) for at, (token, value) in enumerate(tokens)
    )
    return (
        f'<li><p class="text" tabindex="0" role="group" aria-label="Text of {place}; the arrow keys'
        f' read its activations">{text}</p>'
        f'<p class="note" aria-live="polite">{place}: {number(context["activation"])}</p></li>\n'
    )


def _token(token: str, value: float | None, largest: float, peak: bool) -> str:
    """A token; marked if the latent fires there, in as many steps of shade as its activation has of
    the latent's largest."""
    text = escape(in_text(token))
    if not value:
        return text
    shade = "below" if value < 0 else f"s{max(-(-value * SHADES // largest), 1):.0f}"
    kinds = f"{shade} peak" if peak else shade
    title = f"{number(value)}, {percent(value / largest)} of the largest"
    return f'<mark class="{kinds}" title="{title}">{text}</mark>'


def _in_words(context: dict[str, Any]) -> str:
    pairs = zip(context["tokens"], context["activations"], strict=True)
    fired = "; ".join(f"{_tokens([token])} {number(value)}" for token, value in pairs if value)
    return f"context {context['context']}: {fired}"


def _lens(title: str, tokens: Sequence[dict[str, Any]], norm: str | None) -> str:
    if norm is None:
        items = "<p>None: the LM's head is not one linear layer, or the SAE is of mlp_in.</p>"
    else:
        items = "".join(
            f"<li>{_tokens([token['token']])} <span>{signed(token['logit'])}</span></li>"
            for token in tokens
        )
        items = f"<ol>{items}</ol>"
    return f'<section class="tokens"><h4>{title}</h4>{items}</section>'


def _nearest(nearest: Sequence[dict[str, Any]], shown: set[int]) -> str:
    items = "".join(
        f"<li>{_link(other['latent'], shown)} <span>{signed(other['cosine'])}</span></li>"
        for other in nearest
    )
    return f'<section class="tokens"><h4>Nearest latents</h4><ol>{items}</ol></section>'


def _link(latent: int, shown: set[int]) -> str:
    return f'<a href="#latent-{latent}">{latent}</a>' if latent in shown else str(latent)
