-- charge: key, day (none), session; cost, trace.
function verbs.charge(key, day, session, path)
  local cost, before = tonumber(ARGV[12]), remembered_spend(key)
  if before then
    local actual, said
    if before.reserved == 0 then
      actual, said = unpack_posted(before)
    end
    return actual == cost and before.session == session and { 'posted', said } or describe(before)
  end
  local spend = { key = key, state = SETTLED, expiry = PRESUME, reserved = 0, amount = 0, till = now, ended = 0, day = day,
    session = session, trace = ARGV[13] }
  note_spend('charge', spend, ',"cost_nano_usd":' .. int(cost))
  move_all(path, 0, cost, 0, cost > 0)
  local said = posted(path)
  spend.posted = pack_posted(cost, said)
  end_spend(spend, SETTLED)
  return { 'posted', said }
end
