"""The names that the published code imports: `from recformer import RecformerModel`, in the folder Recformer/.

Elsewhere in the project the same is `from Recformer.recformer import RecformerModel`.
"""

from Recformer.published import RecformerConfig, RecformerForSeqRec, RecformerModel, RecformerTokenizer

__all__ = ["RecformerConfig", "RecformerForSeqRec", "RecformerModel", "RecformerTokenizer"]
