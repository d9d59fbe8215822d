"""What an answer to a finding means for reviewed.csv, and what reviewed.csv says of a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from headstart.reviewed import Decision, Grouping
from headstart.reviewing.cases import PAIRS, Case, Cases

Action = Literal["accept", "keep", "drop", "label", "drop other", "label other", "forget"]
ACTIONS: tuple[Action, ...] = get_args(Action)
Decisions = Mapping[str, Decision]  # by image_id
Changes = dict[str, Decision | None]  # by image_id; None: no decision any more


class Answer(NamedTuple):
    """What a person says to a finding."""

    # accept: do what the audit suggests | keep: it is right as it is | label: it shows `label` | other: the image that
    # this one is compared with | forget: ask again
    action: Action
    label: str = ""


def answered(case: Case, decisions: Decisions) -> Answer | None:
    """Return what has been decided about a finding, None if nothing has been."""
    finding = case.finding
    is_pair = finding.kind in PAIRS
    own = _on_single(case, decisions.get(finding.image_id), is_pair)
    if own or not is_pair:
        return own
    other = decisions.get(finding.other_image_id or "")
    if other and other.decision == "drop":
        return Answer("drop other")
    if finding.kind == "conflict" and other and other.label not in ("", finding.suggested):
        return Answer("label other", other.label)
    return None


def _on_single(case: Case, decision: Decision | None, is_pair: bool) -> Answer | None:
    finding = case.finding
    if decision is None:
        return None
    if decision.decision != "change":
        return Answer("drop" if decision.decision == "drop" else "keep")
    if is_pair and decision.group:
        return Answer("keep" if decision.group == finding.image_id else "accept")
    if (is_pair and finding.kind != "conflict") or not decision.label:
        return None
    if decision.label == finding.label:
        return None if is_pair else Answer("keep")
    is_suggested = finding.kind in ("label", "next") and decision.label == finding.suggested
    return Answer("accept") if is_suggested else Answer("label", decision.label)


def changes(cases: Cases, decisions: Decisions, case: Case, answer: Answer) -> Changes:
    """Return how the decisions change by an answer; those about other questions stay."""
    finding, action = case.finding, answer.action
    other = finding.other_image_id or finding.image_id
    if action == "forget":
        return _forgotten(case, decisions)
    if finding.kind == "next" and action in ("keep", "accept", "label"):  # there is no label that could stay
        label = {"keep": finding.label, "accept": finding.suggested or finding.label}.get(action, answer.label)
        return {finding.image_id: Decision(finding.image_id, cases.images[finding.image_id].path, "change", label)}
    if action == "keep":
        return {finding.image_id: _kept(cases, decisions, case)}
    if action in ("drop", "drop other") or (action == "accept" and finding.kind == "odd"):
        image_id = other if action == "drop other" else finding.image_id
        return {image_id: Decision(image_id, cases.images[image_id].path, "drop")}
    if action == "accept" and finding.kind in PAIRS:
        return {**Grouping(cases.images, decisions).join(together(case, decisions))}
    image_id = other if action == "label other" else finding.image_id
    label = (finding.suggested or finding.label) if action == "accept" else answer.label
    return {image_id: _labelled(cases, decisions, image_id, label)}


def together(case: Case, decisions: Decisions) -> list[str]:
    """Return the images of a cluster that become one group: not those that somebody wants to stay as they are."""
    mine = (case.finding.image_id, case.finding.other_image_id)
    apart = {image_id for image_id in case.cluster if image_id in decisions and stays(decisions[image_id])}
    return [image_id for image_id in case.cluster if image_id in mine or image_id not in apart]


def stays(decision: Decision) -> bool:
    """Return whether an image that is nearly the same as others is to be in no group with them."""
    return decision.decision == "keep" or decision.group == decision.image_id


def _kept(cases: Cases, decisions: Decisions, case: Case) -> Decision:
    """Return the decision that an image is right. What it says of the other question, label or group, stays."""
    finding = case.finding
    about, before = cases.images[finding.image_id], decisions.get(finding.image_id)
    if before and finding.kind in PAIRS and before.label:
        return before._replace(group=about.group, split="")
    if before and finding.kind not in PAIRS and before.group:
        return before._replace(label=about.label)
    return Decision(finding.image_id, about.path, "keep")


def _labelled(cases: Cases, decisions: Decisions, image_id: str, label: str) -> Decision:
    """Return the decision that an image shows `label`. That it stays out of a group, or is in one, stays decided."""
    about, before = cases.images[image_id], decisions.get(image_id)
    group, split = (before.group, before.split) if before else ("", "")
    if before and before.decision == "keep" and any(image_id in each.cluster for each in cases.all):
        group = about.group
    if label == about.label and not group:
        return Decision(image_id, about.path, "keep")
    return Decision(image_id, about.path, "change", label, group, split)


def _forgotten(case: Case, decisions: Decisions) -> Changes:
    """Return the changes after which a finding is asked again."""
    finding, answer = case.finding, answered(case, decisions)
    if answer is None:
        return {}
    if answer.action in ("drop other", "label other"):
        other = finding.other_image_id or ""
        return {other: _without(decisions[other], "label")}
    own = decisions[finding.image_id]
    if finding.kind not in PAIRS or not own.group:
        return {finding.image_id: _without(own, "label")}
    grouped = [decisions[each] for each in case.cluster if each in decisions and decisions[each].group == own.group]
    return {each.image_id: _without(each, "group") for each in grouped}


def _without(decision: Decision, what: Literal["label", "group"]) -> Decision | None:
    left = decision._replace(label="") if what == "label" else decision._replace(group="", split="")
    return left if left.decision == "change" and (left.label or left.group or left.split) else None
