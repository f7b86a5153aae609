"""A language model's ranking of candidates, measured as any other. Shapes: n users, K + 1 candidates of each.

With a shortlist the candidates are the items on it, and else the target, which comes first, and K others.
"""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from Baselines.ask_options import Config
from Baselines.comments import Rule
from Baselines.kept import Kept
from Baselines.likelihood import Likelihood
from Baselines.listing import Chat, KeptChat, LocalChat, Said, read_order
from Baselines.server import Server
from Baselines.shortlist import make_shortlist
from seqrec.basics.draws import RowDraws
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_json
from seqrec.basics.progress import progress
from seqrec.data.candidate_files import load_candidates
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.evaluation.candidates import sample_negatives
from seqrec.evaluation.ranking import Ranking, rank_listed
from seqrec.training.folder import RunFolder
from seqrec.training.record import RunRecord
from seqrec.training.trainer import report

log = logging.getLogger(__name__)
ASKED = "asked.json"
NEXT = "A customer chose these, one after the other:\n{history}Next, the customer chose:\n"
RANK = (
    "A customer chose these, one after the other:\n{history}\nWhich of the following will the customer choose next?\n"
    "{candidates}\nRank all {count}, the most likely first. Answer with their numbers alone, separated by commas."
)


def ask_all(config: Config) -> None:
    """Rank the candidates of some users of the test, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    if not dataset.attributes:
        raise UserError(f"{dataset.path} has no texts of its items: prepare it with titles")
    split = config.protocol.hold_out(dataset)
    test, drawn = split.test, {}
    if 0 < config.test_users < len(test):
        drawn = {"drawn_users": config.test_users, "draw_seed": config.seed}
    run = RunFolder("Baselines", dataset, config.way, config.training, config.protocol, drawn=drawn)
    if not run.open(config):
        return
    if drawn:
        chosen = np.random.default_rng(config.seed).choice(len(test), config.test_users, replace=False)
        test = test.select(np.sort(chosen))
    shortlist = None if config.shortlist is None else make_shortlist(config, dataset, split, test)
    candidates = find_candidates(config, dataset, test) if shortlist is None else shortlist.candidates
    titles = ["", *dataset.item_table()[dataset.attributes[0]].fill_null("").to_list()]
    kept, began = Kept(run.folder / "answers.jsonl"), time.perf_counter()
    if config.way == "likelihood":
        scores, told = by_likelihood(config, test, candidates, titles, kept)
    else:
        name, servers = config.model_name_or_path, config.servers
        chat: Chat = LocalChat(name) if servers.server is None else Server(name, servers)
        scores, told = by_list(config, test, candidates, titles, KeptChat(chat, kept))
    seconds = time.perf_counter() - began
    told["users"] = len(test)
    if told["users_read_now"]:
        told["seconds_per_user"] = seconds / told["users_read_now"]
    log.info("%s", ", ".join(f"{name.replace('_', ' ')} {value:,.4g}" for name, value in told.items()))
    module, record = Rule(config.protocol.metric_ks), RunRecord(run.folder, config.training)
    rankings = [rank_first(scores, candidates)] if shortlist is None else shortlist.rank(scores, test.targets)
    recorders = (module.recorder, module.other_recorder)[: len(rankings)]
    for recorder, ranking in zip(recorders, rankings, strict=True):
        recorder.expect(test.users)
        recorder.add(torch.arange(len(test)), ranking)
    module.results = recorders[0].compute()
    module.other_results = recorders[1].compute() if len(recorders) > 1 else None
    write_json(run.folder / ASKED, told)
    report(run, module, record, seconds)


def rank_first(scores: NDArray[np.float64], candidates: NDArray[np.int64]) -> Ranking:
    """Return the ranks of the first of each user's (n, K+1) candidates."""
    there = candidates > 0
    first = np.zeros_like(there)
    first[:, 0] = True
    return rank_listed(*(torch.from_numpy(x) for x in (scores[there], there.sum(axis=1), first[there])))


def find_candidates(config: Config, dataset: Dataset, test: Histories) -> NDArray[np.int64]:
    """Return the target of each user and the others that it is ranked among, (n, K+1), 0 for none."""
    protocol = config.protocol
    if protocol.candidates is not None:
        others = load_candidates(protocol.candidates, dataset)[test.users].astype(np.int64)
    else:
        others = sample_negatives(dataset, test.users, protocol.sample_size, protocol.candidate_seed)
    return np.column_stack([test.targets, others])


def read_history(test: Histories, row: int, most: int, titles: list[str]) -> list[str]:
    """Return the titles of a user's latest items, the oldest first."""
    return [titles[item] for item in test.gather(np.array([row]), most)[0].tolist()]


def by_likelihood(
    config: Config, test: Histories, candidates: NDArray[np.int64], titles: list[str], kept: Kept
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Return the (n, K+1) scores of candidates by how likely their titles are, and what it took."""
    model = Likelihood(config.model_name_or_path)
    end, most = model.tokens("\n"), config.max_title_tokens
    known: dict[int, list[int]] = {}
    alone: dict[int, float] = {}
    scores, read, now = np.full(candidates.shape, -np.inf), 0, 0

    def score(prompt: list[int], items: list[int]) -> tuple[Tensor, Tensor, bool]:
        """Return what `Likelihood.score` does, and whether it was asked now."""
        tokens = [known[item] for item in items]
        found = kept.find([prompt, tokens])
        if found is not None:
            return torch.tensor(found["logs"]), torch.tensor([len(title) for title in tokens]), False
        total, lengths = model.score(prompt, tokens)
        kept.keep([prompt, tokens], logs=total.tolist())
        return total, lengths, True

    bare = model.tokens(NEXT.format(history=""))
    for row, items in enumerate(progress(candidates.tolist(), desc="reading titles", unit="user")):
        own = [item for item in items if item]
        for item in own:
            known.setdefault(item, [*model.tokens(titles[item], most), *end])
        history = "".join(f"{title}\n" for title in read_history(test, row, config.max_his_len, titles))
        prompt = model.tokens(NEXT.format(history=history))
        total, lengths, is_new = score(prompt, own)
        now += is_new
        read += len(prompt) + int(lengths.sum())
        found = total if config.likelihood == "sum" else total / lengths
        if config.likelihood == "gain":
            new = [item for item in own if item not in alone]
            if new:
                without, counts, _ = score(bare, new)
                alone.update(zip(new, (without / counts).tolist(), strict=True))
            found = found - torch.tensor([alone[item] for item in own])
        scores[row, np.array(items) > 0] = found.numpy()
    return scores, {"users_read_now": now, "tokens_per_user": read / len(test)}


def by_list(
    config: Config, test: Histories, candidates: NDArray[np.int64], titles: list[str], chat: Chat
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Return the (n, K+1) scores of candidates by their place in the model's answer, and what it took."""
    draws = RowDraws(config.seed, 0, test.users, "listing")
    keys = draws.uniform(np.full(len(test), candidates.shape[1])).reshape(candidates.shape)
    shown = np.argsort(np.where(candidates > 0, keys, np.inf), axis=1)  # so that a place says nothing of the target

    def ask(row: int) -> Said:
        places = shown[row, : int((candidates[row] > 0).sum())]
        history = read_history(test, row, config.max_his_len, titles)
        message = RANK.format(
            history="".join(f"- {title}\n" for title in history),
            candidates="".join(f"{n}. {titles[candidates[row, place]]}\n" for n, place in enumerate(places, 1)),
            count=len(places),
        )
        return chat.answer(message, 5 * len(places) + 16)

    parallel = 1 if config.servers.server is None else config.servers.server_parallel
    with ThreadPoolExecutor(parallel) as pool:
        answers = list(progress(pool.map(ask, range(len(test))), desc="asking", unit="user", total=len(test)))
    scores, whole = np.full(candidates.shape, -np.inf), 0
    for row, said in enumerate(answers):
        count = int((candidates[row] > 0).sum())
        order, all_named = read_order(said.text, count)
        whole += all_named
        scores[row, shown[row, order]] = -np.arange(count, dtype=np.float64)
    tokens_in, tokens_out = sum(said.tokens_in for said in answers), sum(said.tokens_out for said in answers)
    new = [said for said in answers if not said.was_kept]
    price = config.servers
    cost = sum(said.tokens_in * price.price_in + said.tokens_out * price.price_out for said in new) / 1e6
    told = {"users_read_now": len(new), "answers_that_name_all_once": whole / len(test)}
    return scores, {**told, "tokens_in": tokens_in, "tokens_out": tokens_out, "cost": cost}
