"""`headstart next`: which images without labels to label next, and the page or the list to do so."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from headstart import params_file, reviewed
from headstart.auditing.folder import Finding
from headstart.base.errors import ParamError
from headstart.base.files import located
from headstart.base.validation import ValidationSummary
from headstart.choosing import decided, labelled, proposal
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
    folder = root / _FOLDER
    decided_file = folder / _DECIDED
    if options.source:
        _, labels = proposal.read(options.source)
        added = decided.add(layout, decided_file, labels, options.new_classes)
        if added.n_replaced:
            print(f"next: {added.n_replaced} labels replace another answer in {_FOLDER}/{_DECIDED}")
        return _done(layout, decided_file)
    if options.new_classes:
        raise ParamError("--new-classes is given without --from. The page asks for each new class. Leave it out.")
    decided.check_read_back(folder / proposal.LIST, decided_file)
    before = reviewed.read(decided_file)
    rule: Rule = options.rule
    found = proposal.proposed(layout, rule, options.n, options.seed, before)
    file = proposal.write(folder, found.images)
    bits = ValidationSummary.of(layout).bits or deep.ALL_BITS
    (folder / _SHEET).write_bytes(sheet(layout.of_unlabelled(), found, bits))
    copies = f"; {found.n_copies} that are nearly the same as others are left out" if found.n_copies else ""
    print(f"next: {len(found.images)} of {found.n_candidates} images without labels, chosen by {rule}{copies}")
    print(f"      {file.relative_to(root)}, and as a picture {_FOLDER}/{_SHEET}")
    if options.list:
        print(f"      fill in the column label, then `headstart next --from {file.relative_to(root)}`")
        return 0
    desk = Desk(cases_of(found), decided_file)
    pictures = review.Shown(layout.of_unlabelled().images, bits)
    review.serve(desk, layout, options.port, options.no_browser, "next", f"{len(found.images)} images", pictures)
    return _done(layout, decided_file) if desk.decisions() else 0


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


def _done(layout: Layout, file: Path) -> int:
    """Write labelled.csv with all labels that were ever given, and say what it has."""
    done = labelled.write(layout, decided.labels_of(file))
    if done.n_elsewhere:
        print(
            f"next: {done.n_elsewhere} labels in {_FOLDER}/{_DECIDED} are of images that data.unlabelled does not hold"
            f" now. They stay there, and are not in {done.file.name}"
        )
    if not done.n_new:
        print(f"next: no image has a new label; {done.file.name} is as it was")
        return 0
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
