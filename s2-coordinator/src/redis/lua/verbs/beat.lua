-- beat <1 if it has sessions> (<incarnation> <consumer> <waits>)*: a sign of life. Answers with the epoch of the fleet, when
-- something is due, which of the groups are not as the process believes (0: there are no sessions), the time, and how many tasks
-- may wait for themselves.
local function verb()
  local wrong = {}
  if ARGV[5] == '1' and call('EXISTS', P .. 'tasks') == 0 then
    wrong[1] = 0
  end
  for place = 6, #ARGV, 3 do
    local group = find_group(tonumber(ARGV[place]), tonumber(ARGV[place + 1]))
    local member = group and find_member(group, tonumber(ARGV[place + 1]))
    if not member or member.gone or ARGV[place + 2] == '1' and not member.wait then
      wrong[#wrong + 1] = tonumber(ARGV[place])
    end
  end
  if #ARGV > 5 or ARGV[5] == '1' then
    show_life()
  end
  keep_answers()
  -- What was due may have left something over.
  tasks.save()
  return { 'ok', M.epoch, M.due, wrong, now, M.suspects }
end
