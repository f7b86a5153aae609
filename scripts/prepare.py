"""Turn raw data into a prepared dataset: `python scripts/prepare.py SOURCE --input ... --name ...`.

Sources: demo, atomic, recformer, amazon, movielens, mind, hm, bilibili, hllm, merrec, ebnerd, books, sequences,
histories, table, comments, kuaicomt, microlens-comments, threads, reviews, pickle; corpus, which joins prepared
datasets; cold, which keeps some items of one for the test; interests and comments-demo, made-up long histories, and
videos with comments. `SOURCE --help` lists the options of one. The dataset is written to data/NAME, whole or not at
all, and its card is printed.
"""

from typing import Annotated

from tyro.conf import subcommand

from seqrec.basics.command import run_command
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.amazon import Amazon
from seqrec.data.sources.atomic import Atomic
from seqrec.data.sources.bilibili import Bilibili
from seqrec.data.sources.books import Books
from seqrec.data.sources.cold import Cold
from seqrec.data.sources.comment_layouts import KuaiComt, MicroLensComments, Reviews, Threads
from seqrec.data.sources.comments import CommentTables
from seqrec.data.sources.comments_demo import CommentsDemo
from seqrec.data.sources.corpus import Corpus
from seqrec.data.sources.demo import Demo
from seqrec.data.sources.ebnerd import EbNerd
from seqrec.data.sources.histories import HistoryFiles
from seqrec.data.sources.hllm import Hllm
from seqrec.data.sources.hm import HM
from seqrec.data.sources.interests import Interests
from seqrec.data.sources.merrec import MerRec
from seqrec.data.sources.mind import Mind
from seqrec.data.sources.movielens import MovieLens
from seqrec.data.sources.pickled import Pickled
from seqrec.data.sources.recformer import JsonSplits
from seqrec.data.sources.sequences import Sequences
from seqrec.data.sources.table import TableFile

Source = (
    Annotated[Demo, subcommand(Demo.kind)]
    | Annotated[Atomic, subcommand(Atomic.kind)]
    | Annotated[JsonSplits, subcommand(JsonSplits.kind)]
    | Annotated[Amazon, subcommand(Amazon.kind)]
    | Annotated[MovieLens, subcommand(MovieLens.kind)]
    | Annotated[Mind, subcommand(Mind.kind)]
    | Annotated[HM, subcommand(HM.kind)]
    | Annotated[Bilibili, subcommand(Bilibili.kind)]
    | Annotated[Hllm, subcommand(Hllm.kind)]
    | Annotated[MerRec, subcommand(MerRec.kind)]
    | Annotated[EbNerd, subcommand(EbNerd.kind)]
    | Annotated[Books, subcommand(Books.kind)]
    | Annotated[Sequences, subcommand(Sequences.kind)]
    | Annotated[HistoryFiles, subcommand(HistoryFiles.kind)]
    | Annotated[TableFile, subcommand(TableFile.kind)]
    | Annotated[CommentTables, subcommand(CommentTables.kind)]
    | Annotated[KuaiComt, subcommand(KuaiComt.kind)]
    | Annotated[MicroLensComments, subcommand(MicroLensComments.kind)]
    | Annotated[Threads, subcommand(Threads.kind)]
    | Annotated[Reviews, subcommand(Reviews.kind)]
    | Annotated[CommentsDemo, subcommand(CommentsDemo.kind)]
    | Annotated[Pickled, subcommand(Pickled.kind)]
    | Annotated[Corpus, subcommand(Corpus.kind)]
    | Annotated[Cold, subcommand(Cold.kind)]
    | Annotated[Interests, subcommand(Interests.kind)]
)


def main(config: Source) -> None:
    """Prepare one dataset and print its card."""
    from seqrec.evaluation.signal import describe_fully  # scipy and scikit-learn: not for --help

    folder = prepare(config)
    print(describe_fully(load_dataset(folder)))
    print(f"prepared dataset: {folder}")


if __name__ == "__main__":
    run_command(main, Source)
