"""What a model answers to single queries: right and wrong, chosen by a fixed rule."""

import dataclasses

import numpy as np

from mmcl.evals.embedded import Embedded
from mmcl.evals.pairs import TIE, check_unit, ranks
from mmcl.evals.retrieval import asked

ANSWERS = 5  # shown to a query


@dataclasses.dataclass(frozen=True)
class Answer:
    """A record, its cosine similarity to the query, and whether it is a right answer."""

    record: int
    score: float
    right: bool


@dataclasses.dataclass(frozen=True)
class Query:
    """A query, its best answers, and the rank (1 = nearest) of its best right answer.

    `missed` is the record of that right answer where it is not among the answers.
    """

    record: int
    answers: list[Answer]
    rank: int
    missed: int | None


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Queries of one modality answered in another; right and wrong speak of the first answer."""

    from_: str
    to: str
    queries: int
    right_queries: int
    right: list[Query]
    wrong: list[Query]


def gallery(embedded: Embedded, from_: str, to: str, show: int) -> Gallery:
    """Up to `show` queries with a right first answer and up to `show` with a wrong one.

    A fixed permutation decides which, so that two runs on the same data show the same queries
    wherever they agree.
    """
    queries, answering = asked(embedded, from_, to, "concept")
    if not len(queries):
        return Gallery(from_, to, 0, 0, [], [])
    concept_N = embedded.labels["concept"]
    z_AxD = check_unit(embedded.z[to][answering], to)
    rank_Q = ranks(
        check_unit(embedded.z[from_][queries], from_),
        z_AxD,
        concept_N[queries],
        concept_N[answering],
    )

    def ask(query: int, rank: int) -> Query:
        score_A = z_AxD @ embedded.z[from_][query].astype(np.float32)
        right_A = concept_N[answering] == concept_N[query]
        order_A = np.argsort(TIE * right_A - score_A, kind="stable")  # of equals the wrong first
        answers = [
            Answer(int(answering[i]), float(score_A[i]), bool(right_A[i]))
            for i in order_A[:ANSWERS]
        ]
        right = next(int(answering[i]) for i in order_A if right_A[i])
        missed = None if any(answer.right for answer in answers) else right
        return Query(query, answers, rank, missed)

    shuffled = np.random.default_rng(0).permutation(len(queries))
    right = [ask(int(queries[i]), int(rank_Q[i])) for i in shuffled[rank_Q[shuffled] == 1][:show]]
    wrong = [ask(int(queries[i]), int(rank_Q[i])) for i in shuffled[rank_Q[shuffled] > 1][:show]]
    return Gallery(from_, to, len(queries), int(np.sum(rank_Q == 1)), right, wrong)
