"""The words of the made-up shop; `demo.py` says what they mean. Lists are texts, split at | or blanks."""

KINDS = {
    "Kitchen": "coffee grinder|kettle|stand mixer|bread maker|knife block",
    "Garden": "hedge trimmer|sprinkler|plant lamp|compost bin|lawn edger",
    "Workshop": "cordless drill|belt sander|soldering station|bench vice|heat gun",
    "Bath": "shower head|electric razor|towel warmer|foot bath|hair dryer",
    "Cycling": "bike pump|saddle bag|headlight|chain tool|repair stand",
    "Camping": "gas stove|water filter|lantern|cool box|camp shower",
    "Music": "practice amplifier|guitar tuner|drum pad|clarinet stand|metronome",
    "Office": "label printer|paper shredder|fountain pen|desk lamp|laminator",
    "Aquarium": "canister filter|fish feeder|tank heater|air stone|algae scraper",
    "Photo": "tripod|ring light|film scanner|lens cleaner|photo printer",
    "Sewing": "sewing machine|steam iron|embroidery hoop|rotary cutter|overlocker",
    "Pets": "cat fountain|dog brush|litter box|bird feeder|nail grinder",
}
FINISHES = (
    "walnut|brushed steel|matte black|ivory|sage green|cobalt blue|terracotta|bamboo|rose gold|slate grey|lemon|plum"
)
STAGES = (
    "{good}",
    "holder for {good}",
    "cleaning tablets for {good}, 10 pieces",
    "refill pack for {good}",
    "replacement part for {good}",
    "{good}, large size",
    "travel case for {good}",
    "wall mount for {good}",
    "spare cable for {good}",
    "storage bag for {good}",
    "filter set for {good}",
    "{good}, mini size",
    "protective cover for {good}",
    "repair kit for {good}",
    "handbook of {good}",
)
LATE = "{good} mark II"
FIRST = (
    "Copper Silver Amber Velvet Harbour Winter Summer Quiet Golden Hidden Northern Wild Paper Crystal Iron Cedar "
    "Ocean Desert Midnight Morning Royal Humble Gentle Rapid Lunar Solar Rustic Urban Alpine Coral Ember Frost "
    "Granite Meadow Maple Orchard Pebble River Shadow Thunder"
)
SECOND = (
    "Lantern Fox Anchor Feather Compass Bridge Sparrow Falcon Garden Harp Island Jewel Kite Ladder Mirror Needle "
    "Otter Pilot Quill Ribbon Saddle Temple Umbrella Violin Willow Yard Acorn Badger Candle Dolphin Engine Forest "
    "Glacier Heron Ivy Jacket Kernel Lemon Marble Nest"
)
BRAND_HEADS = "Bel Dor Fen Gal Hol Kar Lim Mer Nor Pol Ras Sul Tam Vel"
BRAND_TAILS = "ando brix eco elle ix mark ora tec usa wick"
