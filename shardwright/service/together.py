"""Questions of several requests at once, answered in one go."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """A function of many questions that runs once at a time.

    What is asked while it runs waits, and is then answered in one call. That pays where a call
    takes nearly as long for one question as for eight, as a pass over all vectors does.
    """

    def __init__(self, answers: Callable[[Sequence[Question]], Sequence[Answer]]) -> None:
        """Takes a function that gives an answer for each question, in their order."""
        self._answers = answers
        self._running = threading.Lock()
        self._adding = threading.Lock()
        self._waiting: list[tuple[Question, Future[Answer]]] = []

    def answer(self, question: Question) -> Answer:
        """The answer to one question; what the function raises for it alone is raised here."""
        mine: Future[Answer] = Future()
        with self._adding:
            self._waiting.append((question, mine))
        with self._running:
            if not mine.done():  # no other call took it along
                with self._adding:
                    asked, self._waiting = self._waiting, []
                self._settle(asked)
        return mine.result()

    def _settle(self, asked: Sequence[tuple[Question, Future[Answer]]]) -> None:
        try:
            answers = self._answers([question for question, _ in asked])
        except Exception as error:
            if len(asked) == 1:
                asked[0][1].set_exception(error)
                return
            for one in asked:  # an error of one is not the others'
                self._settle([one])
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            future.set_result(answer)
