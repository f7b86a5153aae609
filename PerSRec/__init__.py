"""Long histories compressed into a few learned user tokens, over HSTU and SASRec."""
