-- tasks_unclaim <n> <request>: nobody waits for this claim any more. What it was granted is released at once.
local function verb()
  open({ 'session:' .. ARGV[5] })
  begin_queues()
  local session = find_session(tonumber(ARGV[5]))
  if session then
    stop_waiting_to_claim(session, ARGV[6])
    hand_back(session, ARGV[6])
  end
  return { 'ok', 1 }
end
