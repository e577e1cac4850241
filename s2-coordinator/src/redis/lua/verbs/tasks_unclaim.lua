-- tasks_unclaim <n> <request>: nobody waits for this claim any more. What it was granted is released at once.
local function verb()
  open({ 'session:' .. ARGV[5] })
  begin_queues()
  local session = find_session(tonumber(ARGV[5]))
  if session then
    stop_waiting_to_claim(session, ARGV[6])
    local leases = granted_before(session, ARGV[6]) or ''
    for place = 1, #leases, 14 do
      local id, token = unpack_bytes('>I7I7', leases, place)
      local rec = find_task(id)
      if rec and holds(rec, token) then
        release_task(rec)
      end
    end
  end
  return { 'ok', 1 }
end
