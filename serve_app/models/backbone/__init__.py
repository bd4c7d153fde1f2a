"""The network between token ids and token states: padded or packed, behind one ragged output type."""
