"""`headstart next`: which images without labels to label next, and the page or the list to do so."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from headstart import params_file, reviewed
from headstart.auditing.folder import Finding
from headstart.base.files import located
from headstart.base.validation import ValidationSummary
from headstart.choosing import labelled, proposal
from headstart.choosing.proposal import Proposal, Proposed
from headstart.choosing.rules import Rule
from headstart.commands import review
from headstart.embedding.contact_sheet import contact_sheet
from headstart.images import decoding, deep
from headstart.layout import Layout, find_root
from headstart.reviewed import About
from headstart.reviewing.cases import Case, Cases
from headstart.reviewing.desk import Desk

_FOLDER, _DECIDED, _SHEET = "next", "decided.csv", "sheet.jpg"
_A_ROW = 12  # images of the contact sheet


def propose(options: argparse.Namespace) -> int:
    """List the images, and show the page to label them until Ctrl-C; or read labels back. Return 0."""
    root = find_root(Path.cwd())
    layout = Layout.of(root, params_file.load(root / "params.yaml"))
    if options.source:
        _, labels = proposal.read(options.source)
        return _done(layout, labels)
    rule: Rule = options.rule
    found = proposal.proposed(layout, rule, options.n, options.seed)
    folder = root / _FOLDER
    file = proposal.write(folder, found.images)
    bits = ValidationSummary.of(layout).bits or deep.ALL_BITS
    (folder / _SHEET).write_bytes(sheet(layout.of_unlabelled(), found, bits))
    copies = f"; {found.n_copies} that are nearly the same as others are left out" if found.n_copies else ""
    print(f"next: {len(found.images)} of {found.n_candidates} images without labels, chosen by {rule}{copies}")
    print(f"      {file.relative_to(root)}, and as a picture {_FOLDER}/{_SHEET}")
    if options.list:
        print(f"      fill in the column label, then `headstart next --from {file.relative_to(root)}`")
        return 0
    desk = Desk(cases_of(found), folder / _DECIDED)
    pictures = review.Shown(layout.of_unlabelled().images, bits)
    review.serve(desk, layout, options.port, options.no_browser, "next", f"{len(found.images)} images", pictures)
    return _done(layout, labels_of(desk)) if desk.decisions() else 0


def cases_of(found: Proposal) -> Cases:
    """Return the question of each image: does it show what the model guesses?"""
    cases = [Case(number, _finding(each), ()) for number, each in enumerate(found.images)]
    images = {each.image_id: About(each.path, each.guess, each.image_id, None) for each in found.images}
    return Cases(cases, images, dict.fromkeys(images, ""), found.classes, [], 0)


def _finding(each: Proposed) -> Finding:
    return Finding(
        "next",
        each.image_id,
        each.path,
        split="",
        label=each.guess,
        other_image_id=None,
        other_path=None,
        same_image_id=None,
        same_path=None,
        suggested=each.second,
        cluster=None,
        score=each.probability,
        severity="low",
        reason=f"The model says {each.guess} with {each.probability:.0%}, then {each.second}",
        to_do="",
    )


def labels_of(desk: Desk) -> dict[str, str]:
    """Return image_id -> label of the images that were labelled, those of earlier pages too, without dropped ones.

    That a guess is right becomes a label in the file, for another page may have other guesses.
    """
    guesses = {each.finding.image_id: each.finding.label for each in desk.cases.all}
    with reviewed.changing(desk.file) as decisions:
        for image_id, decision in decisions.items():
            if decision.decision == "keep" and image_id in guesses:
                decisions[image_id] = decision._replace(decision="change", label=guesses[image_id])
        return {image_id: each.label for image_id, each in decisions.items() if each.label}


def _done(layout: Layout, labels: dict[str, str]) -> int:
    done = labelled.write(layout, labels)
    print(f"next: {done.n_new} new labels; {done.file.name} has all {done.n_images} labelled images, the new in train")
    outside = " --set data.allow_outside=true" if done.leads_out else ""
    print(f"      `headstart run --data {done.file.name}{outside}` learns from them")
    return 0


def sheet(own: Layout, found: Proposal, bits: int) -> bytes:
    """Return a JPEG of the images, in rows by the model's guess."""
    rows: dict[str, list[np.ndarray]] = {}
    for each in found.images:
        row = rows.setdefault(each.guess, [])
        if len(row) < _A_ROW:
            rgb = decoding.decode(decoding.read_unchanged(located(each.path, own.images), each.image_id), bits).rgb
            image = Image.fromarray(rgb)
            image.thumbnail((160, 160))
            row.append(np.asarray(image))
    return contact_sheet(rows)
