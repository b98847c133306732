"""The sections of a recipe that judge records: study, evaluate, heterogeneity and prune."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from shardwright.pipelines.grouping import Grouping
from shardwright.pipelines.section_types import Count, Patterns, Section, Share, known
from shardwright.quality.budget import RepetitionLaw
from shardwright.quality.heterogeneity.groups import LEAST, check_rule
from shardwright.quality.pruning.added import find_method, score_packages
from shardwright.quality.pruning.methods import METHODS


def _known_method(name: str) -> str:
    return known(find_method, name)


def _known_rule(rule: str) -> str:
    return known(check_rule, rule)


MethodName = Annotated[str, AfterValidator(_known_method)]


class Prototypes(Section):
    """SSL prototypes: which end of the distances is kept, and how evenly over clusters."""

    keep: Literal["hard", "easy"] = "hard"
    balance: Share = 0.0


class D4(Section):
    """D4: the share that its first step, SemDeDup, keeps."""

    dedup: Annotated[float, Field(gt=0, le=1)] = 0.75


class Density(Section):
    """Density-based pruning: temperature, and what each cluster keeps at least."""

    tau: Annotated[float, Field(gt=0)] = 0.1
    min_samples: Annotated[int, Field(ge=0)] = 1


class Study(Section):
    """Records that are damaged on purpose, to learn what damage looks like."""

    documents: Annotated[int, Field(ge=40)] = 400
    copies: Annotated[int, Field(ge=1, le=20)] = 3
    dose: Annotated[float, Field(gt=0, le=1)] = 0.5
    files: Annotated[int, Field(ge=0)] = 4000
    without: Patterns = ()
    seed: Annotated[int, Field(ge=0)] = 0


class Evaluate(Section):
    """Trials in which damage is planted into a sample, to see which methods find it."""

    files: Annotated[int, Field(ge=40)] = 2000
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    dose: Annotated[float, Field(gt=0, le=1)] = 0.5
    folds: Annotated[int, Field(ge=2)] = 4
    seed: Annotated[int, Field(ge=0)] = 0


class Heterogeneity(Section):
    """Groups of images by what made them, and how they are compared."""

    group: Annotated[str, AfterValidator(_known_rule)] = "auto"
    least: Annotated[int, Field(ge=10)] = LEAST
    groups: Annotated[int, Field(ge=2)] = 8
    most: Annotated[int, Field(ge=10)] = 1000
    match: Literal["auto", "label", "cluster"] | None = "auto"
    permutations: Annotated[int, Field(ge=19)] = 999
    correction: Literal["holm", "benjamini_hochberg"] = "holm"
    images: Annotated[int, Field(ge=0)] = 32
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Heterogeneity":
        if self.most < self.least:
            raise ValueError(
                f"most {self.most} is below least {self.least}: no group could be compared"
            )
        return self


class Learned(Section):
    """What the classifier learns from: a table that labels records, and files of one's own."""

    labels: str | None = None
    good: Patterns = ()
    bad: Patterns = ()

    @model_validator(mode="after")
    def _labels_something(self) -> "Learned":
        if self.labels is None and not (self.good and self.bad):
            raise ValueError(
                "give labels, a table of records with a column label, or good and bad, patterns "
                "of example files, or both"
            )
        return self


class Budget(Section):
    """A training run, for what ``--dry-run`` says of each fraction."""

    tokens: Count
    bytes_per_token: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.5
    data_decay: Annotated[float, Field(gt=0, allow_inf_nan=False)] = RepetitionLaw().data_decay


def _check_most(most: object) -> object:
    if isinstance(most, int | float) and not isinstance(most, bool):
        if 0 < most < 1 or (most >= 1 and most == int(most)):
            return most
    elif most == "smallest":
        return most
    raise ValueError(
        f"{most!r} is no bound of a group; give a number of records, like 500, a share of what is "
        "kept, like 0.3, or smallest: as many as the smallest group keeps"
    )


class GroupCap(Section):
    """How many records of one group may be kept."""

    by: Grouping
    most: Annotated[int | float | Literal["smallest"], BeforeValidator(_check_most)] = "smallest"
    least: Annotated[int, Field(ge=1)] = 1


class Prune(Section):
    """A fraction of the records goes: those that a method finds least worth keeping."""

    method: MethodName = "scip"
    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    within: Grouping | None = None
    cap: GroupCap | None = None
    scores: tuple[MethodName, ...] | None = None
    alpha: Share = 0.8
    ssl_prototypes: Prototypes = Prototypes()
    d4: D4 = D4()
    density: Density = Density()
    classifier: Learned | None = None
    budget: Budget | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _labels_are_there(self) -> "Prune":
        if self.classifier is None and "classifier" in (self.method, *(self.scores or ())):
            raise ValueError(
                "the method 'classifier' learns from labels, and classifier is null; give "
                "prune.classifier, like {labels: labels.csv}"
            )
        return self

    def methods(self, modality: str) -> tuple[str, ...]:
        """The scores that are computed, in the order of their columns."""
        named = {*(self.scores or ()), self.method}
        wanted = None if self.scores is None else named
        added = [find_method(name) for name in sorted(named - {method.name for method in METHODS})]
        return tuple(
            method.name
            for method in (*METHODS, *added)
            if modality in method.modalities
            and ("labels" not in method.needs or self.classifier is not None)
            and (wanted is None or method.name in wanted)
        )

    def added(self) -> dict[str, str]:
        """The packages of those named methods that packages add, by method."""
        return score_packages({*(self.scores or ()), self.method})

    def parameters(self) -> dict[str, Any]:
        """What decides the scores, beside the tables that they are made from."""
        # where labels lie decides nothing, and what they say stands in the table `classified`
        aside = {"within", "cap", "method", "scores", "classifier", "budget"}
        packages = self.added()
        rest = {"packages": packages} if packages else {}
        return {**self.model_dump(mode="json", exclude=aside), **rest}
