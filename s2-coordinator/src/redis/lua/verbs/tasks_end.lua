-- tasks_end <n> (<task> <token> <how> …)* <session or 0> <name> <request> <max>: ends claims and claims for a session.
local function verb()
  local count, place, endings, fields = tonumber(ARGV[5]), 6, {}, {}
  for nth = 1, count do
    endings[nth], place = read_ending(place)
    fields[nth] = endings[nth].name16
  end
  local n, name, request, max = tonumber(ARGV[place]), ARGV[place + 1], ARGV[place + 2], tonumber(ARGV[place + 3])
  if n > 0 then
    fields[#fields + 1] = 'session:' .. ARGV[place]
  end
  open(fields)
  begin_queues()
  if n > 0 then
    local session, wrong = check_session(n, name)
    if not session then
      return wrong
    end
  end
  local ended = {}
  for nth, said in ipairs(endings) do
    ended[nth] = end_claim(said)
  end
  -- What follows may be what is claimed.
  work()
  -- If the session has too many, what it has ended is ended all the same.
  local grants = n > 0 and claim_tasks(n, name, request, max) or {}
  return { 'ok', { ended, grants } }
end
